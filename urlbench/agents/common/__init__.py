"""What several families of agents are made of, one concept a file."""
