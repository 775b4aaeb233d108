"""What a deployment engine is: the protocol, the rules that all of them share, how one is found."""
