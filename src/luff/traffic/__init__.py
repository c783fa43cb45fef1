"""Synthetic traffic: an open loop over a transport of our own, with httpx's request and response types."""
