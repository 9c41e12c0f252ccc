//! `roundrobin`: the partitions of all topics are dealt out in turn, each to the next member that reads its topic.

use super::layout::{Assigned, Layout};

pub(super) fn assign(layout: &Layout<'_>) -> Assigned {
    let mut assigned = vec![Vec::new(); layout.members.len()];
    let everybody: Vec<usize> = (0..layout.members.len()).collect();
    let circle = layout.by_instance(&everybody);
    let mut turn = 0;
    for partition in 0..layout.total() {
        // Every topic has a reader.
        for step in 0..circle.len() {
            let at = (turn + step) % circle.len();
            if layout.does_read(circle[at], layout.topic(partition)) {
                assigned[circle[at]].push(partition);
                turn = at + 1;
                break;
            }
        }
    }
    assigned
}
