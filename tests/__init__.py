"""Tests: the same tree as the packages, and in support/ what they share."""
