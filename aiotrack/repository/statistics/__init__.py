"""What is counted: live where it is open, from rollups where it is over."""
