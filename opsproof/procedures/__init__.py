"""The verbs: what each action does, step by step, without pytest."""
