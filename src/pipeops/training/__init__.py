"""Training one node of the DAG."""
