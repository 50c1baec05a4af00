"""Judge a request by a policy: every reason for a refusal, each with its rule and a remedy."""
