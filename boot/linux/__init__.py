"""What runs inside of the Linux boot image, from the kernel's first program to the last."""
