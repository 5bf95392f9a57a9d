"""A results folder as a submission: the rules that it has to keep, the replay, the leaderboard and its exports."""
