module perfstream/demo/gopprof

go 1.19
