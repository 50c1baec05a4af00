"""The messages of questions and training steps, and the terms that each fixes for its secure sum."""
