"""Mobula: an object store with compute as a first-class operation."""

VERSION = "0.1.0"
