"""Work on volume files of any size, block by block: on many processes, interrupted at any time, never done twice."""
