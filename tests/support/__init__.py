"""What several tests share: servers, environments, commands, ways to generate and to verify."""
