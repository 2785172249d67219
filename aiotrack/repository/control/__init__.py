"""What acts on executions, and the rows that it keeps: wishes, workers, definitions, clean-up."""
