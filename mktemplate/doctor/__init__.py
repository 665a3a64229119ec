"""What `doctor` tries, for root and for a normal user."""
