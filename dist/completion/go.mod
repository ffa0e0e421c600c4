module github.com/selvage-net/selvage/dist/completion

go 1.26.0
