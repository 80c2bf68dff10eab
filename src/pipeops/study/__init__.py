"""A study: its configuration, what it costs, its jobs and its analyses. Nothing heavy is imported."""
