"""What a silo's rows add to the metrics of a model, from scores and outcomes: pure, with numpy alone."""
