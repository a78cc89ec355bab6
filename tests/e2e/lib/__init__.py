"""What the end-to-end tests are written with: servers, the program under test, and comparison."""
