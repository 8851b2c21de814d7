"""One job on several machines, each given the same command: what it is told, and how the nodes keep together."""
