"""What a training run needs around its loop: recipe, run folder, log, checkpoints, precision, several processes."""
