"""What every room uses: types and the shape legend, errors, options, files."""
