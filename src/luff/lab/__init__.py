"""A mesh on this machine: an emulated Kubernetes API, the real Envoy, services as local processes."""
