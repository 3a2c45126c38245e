"""What every room speaks of: errors, conditions, random values, a learner's turn, devices."""
