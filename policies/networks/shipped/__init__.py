"""The networks that come with the platform: each a graph that follows from sizes, inputs and what is predicted."""
