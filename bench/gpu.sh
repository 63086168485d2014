#!/usr/bin/env bash
# Every row of the GPU section of RESULTS.md, in eight minutes at most.
#
#   bench/gpu.sh TOKENIZER QUESTIONS PICTURES > gpu.md
#
# TOKENIZER: a checkpoint's folder, whose tokenizer a random model of ParsBERT's shape takes; QUESTIONS: SQuAD JSON;
# PICTURES: as --data of train_vit.py. Each part has its seconds; one that runs over them is ended, and what it had
# measured by then stands in its section. DEVICE=cpu, MODEL=DIR (instead of the random one), STEPS, EXAMPLES, IMAGES
# and PERCENT (of all seconds) make it small enough to try elsewhere.
set -u
cd "$(dirname "$0")/.."
tokenizer=$1 questions=$2 pictures=$3
device=${DEVICE:-cuda} model=${MODEL:-} percent=${PERCENT:-100}
made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT

part() { # seconds, title, command
    local seconds=$(($1 * percent / 100)) title=$2 status=0
    shift 2
    [ "$seconds" -gt 0 ] || seconds=1
    printf '\n## %s\n\n    python -m %s\n\n' "$title" "$*"
    timeout --signal=TERM --kill-after=5 "$seconds" python -m "$@" 2> "$made/said" || status=$?
    if [ "$status" = 124 ] || [ "$status" = 137 ]; then
        echo "not measured: it ran over its $seconds seconds; by then:"
        grep '^round' "$made/said" || echo "nothing"
    elif [ "$status" != 0 ]; then
        echo "not measured: it ended with status $status: $(tail -n 1 "$made/said")"
    fi
}

if [ -z "$model" ]; then
    model=$made/model
    part 15 "A model of ParsBERT's shape" bench.shape bert-base --tokenizer "$tokenizer" --out "$model"
fi
step=(bench.train_step --weights "$model" --data "$questions" --device "$device" --rounds 1 --steps "${STEPS:-10}")
part 60 "A training step, 16 bits, batch 16" "${step[@]}" --precision mixed --quick
part 115 "An epoch of the report's" bench.epoch --weights "$model" --train "$questions" --device "$device" \
    --precision mixed --hf-steps "${STEPS:-10}" --examples "${EXAMPLES:-63994}"
part 75 "The vision recipe" bench.vision --data "$pictures" --device "$device" --precision mixed --tf32 \
    --limit-train "${IMAGES:-0}" --hf-steps 2 --cache-gb 20 --threads "$(nproc)"
part 50 "A training step, 16 bits, batch 64" "${step[@]}" --precision mixed --quick --batch-size 64
part 45 "A training step, float32" "${step[@]}" --quick
part 45 "A training step, TF32" "${step[@]}" --quick --tf32
part 65 "A training step, 16 bits, compiled" "${step[@]}" --precision mixed --quick --compile
