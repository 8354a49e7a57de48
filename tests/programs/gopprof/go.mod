module gopprof

go 1.21
