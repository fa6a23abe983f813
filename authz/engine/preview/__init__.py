"""Who gains and who loses what if another policy were active.

`previewer` runs previews alongside checks; `computation` is one preview. `cells` compares the two policies,
`scope_tree` reads a course with its sessions, `group_impact` says what changes for its members, and `tally`
counts the rows.
"""
