"""How each layout of layers is emitted; which one is used is declared in ``models/families``."""
