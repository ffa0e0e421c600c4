package main

// binDir is where make build puts what a lab runs.
const binDir = "../../../../bin"
