"""What the agent learns from the Kubernetes API: the pods of its own node, by one watch."""
