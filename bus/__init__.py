"""What travels between the parts of ImageInvoker, and the manners of travelling."""
