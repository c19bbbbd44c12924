"""What a data root holds, in numbers and in pictures."""
