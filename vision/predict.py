"""What is in a picture? The five likeliest classes of each image file.

python -m vision.predict --model runs/demo-vit/model IMAGE...
"""




TOP = 5
