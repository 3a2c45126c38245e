"""What can be seen of a training run without data: looks, a verdict, alarms, and the best state so far."""
