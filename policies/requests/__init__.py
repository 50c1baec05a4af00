"""The wire vocabulary of questions and training steps, and what each fixes about its secure sum."""
