"""The built-in paradigms; `bench` loads them through its registry."""
