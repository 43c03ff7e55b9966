"""What devices run: profiles, and the options and forms that follow from them."""
