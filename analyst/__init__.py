"""The analyst's side: plans questions, signs requests, opens reports. `consilo` is its command."""
