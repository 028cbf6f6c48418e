"""Parts for jaxvff from another package."""
