"""What tests share: servers, clients, disks and proxies to test with, and checkers of what came out."""
