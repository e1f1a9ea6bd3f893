"""Where and how a flow's steps are worked on."""
