"""What can be seen of a training without data: looks, a verdict, alarms, and the state that is kept."""
