"""What each layout of layers needs of PyTorch; which one is used is declared in ``models/families``."""
