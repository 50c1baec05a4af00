"""Judge a request by a policy: every reason to say no, each with its rule and a remedy."""
