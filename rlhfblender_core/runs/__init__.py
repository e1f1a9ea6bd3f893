"""Runs that are under way or died: their folders, their claims, what they leave."""
