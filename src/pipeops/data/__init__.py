"""Classification tasks: loaded or generated, and tokenised."""
