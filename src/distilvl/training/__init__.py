"""Training. Read `trainer.py` first, the loop; then `setup.py`, what it works on, and `train.py`, the way in."""
