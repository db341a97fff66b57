//! Values by the addresses at which they start: a tree whose nodes do not change, of which an edit copies a path.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::error::Error;
use crate::memory::Counted;

/// The most rows of a node. As many bits has [`Leaf::buried`].
const MOST: usize = 32;

/// A tree of rows, or a part of one. None is empty.
#[allow(clippy::large_enum_variant, reason = "values are pointers, too, so that both variants are as large")]
pub(super) enum Node<T> {
    Leaf(Leaf<T>),
    /// Each row is a node, under the start of its first row.
    Inner(Run<Counted<Self>>),
}

pub(super) struct Leaf<T> {
    rows: Run<T>,
    /// A bit for each row that is no longer to be found, for want of the memory for an edit.
    buried: AtomicU32,
}

/// Rows by their starts, which ascend.
pub(super) struct Run<V> {
    length: usize,
    starts: [usize; MOST],
    values: [Option<V>; MOST],
}

impl<V> Run<V> {
    const fn new() -> Self {
        Self { length: 0, starts: [0; MOST], values: [const { None }; MOST] }
    }

    /// Returns `rows` as one run, or as two if they are too many, of which there are twice [`MOST`] at most.
    fn of<'v>(rows: impl Iterator<Item = (usize, &'v V)> + Clone) -> [Self; 2]
    where
        V: Clone + 'v,
    {
        let count = rows.clone().count();
        let first = if count <= MOST { count } else { count.div_ceil(2) };
        let mut runs = [Self::new(), Self::new()];
        for (at, (start, value)) in rows.enumerate() {
            let [low, high] = &mut runs;
            let run = if at < first { low } else { high };
            if let (Some(to), Some(place)) = (run.starts.get_mut(run.length), run.values.get_mut(run.length)) {
                (*to, *place) = (start, Some(value.clone()));
                run.length = run.length.saturating_add(1);
            }
        }
        runs
    }

    fn rows(&self) -> impl Iterator<Item = (usize, &V)> + Clone {
        self.starts.iter().zip(&self.values).map_while(|(&start, value)| Some((start, value.as_ref()?)))
    }

    /// Returns the index of the last row that starts at `address` or in front of it.
    fn last_from(&self, address: usize) -> Option<usize> {
        // Jumps that a processor foresees: that takes half the time of halving without them, whether it foresees right
        // or not.
        let starts = self.starts.get(..self.length)?;
        starts.iter().position(|&start| start > address).unwrap_or(starts.len()).checked_sub(1)
    }

    fn value(&self, at: usize) -> Option<&V> {
        self.values.get(at)?.as_ref()
    }
}

impl<T> Leaf<T> {
    const fn of(rows: Run<T>) -> Self {
        Self { rows, buried: AtomicU32::new(0) }
    }

    fn is_buried(&self, at: usize) -> bool {
        self.buried.load(Ordering::Acquire) & bit(at) != 0
    }

    /// Returns the rows that are to be found.
    fn rows(&self) -> impl Iterator<Item = (usize, &T)> + Clone {
        self.rows.rows().enumerate().filter(|(at, _)| !self.is_buried(*at)).map(|(_, row)| row)
    }
}

fn bit(at: usize) -> u32 {
    u32::try_from(at).map_or(0, |at| 1_u32.unbounded_shl(at))
}

impl<T> Node<T> {
    /// Returns the value with the last start that is at `address` or in front of it, unless it was buried.
    pub(super) fn last_from(&self, address: usize) -> Option<&T> {
        let (leaf, at) = self.leaf(address)?;
        if leaf.is_buried(at) { None } else { leaf.rows.value(at) }
    }

    /// Lets the row that starts at `start` not be found any more, without memory. Its value stays until its leaf is
    /// copied.
    pub(super) fn bury(&self, start: usize) {
        if let Some((leaf, at)) = self.leaf(start) {
            leaf.buried.fetch_or(bit(at), Ordering::Release);
        }
    }

    /// Returns the start of a row that was buried.
    pub(super) fn buried(&self) -> Option<usize> {
        match self {
            Self::Leaf(leaf) => {
                let (_, (start, _)) = leaf.rows.rows().enumerate().find(|(at, _)| leaf.is_buried(*at))?;
                Some(start)
            }
            Self::Inner(nodes) => nodes.rows().find_map(|(_, node)| node.buried()),
        }
    }

    /// Returns where the last row lies that starts at `address` or in front of it.
    fn leaf(&self, address: usize) -> Option<(&Leaf<T>, usize)> {
        let mut node = self;
        loop {
            match node {
                Self::Leaf(leaf) => return Some((leaf, leaf.rows.last_from(address)?)),
                Self::Inner(nodes) => node = nodes.value(nodes.last_from(address)?)?,
            }
        }
    }

    /// Returns a tree in which `value` starts at `start`, or nothing does; `None` if it would be empty.
    ///
    /// Nodes that lose rows are not joined: none is empty, so there are never more of them than rows, and no path is
    /// longer than when there were most.
    ///
    /// # Errors
    ///
    /// [`Error::Memory`]
    pub(super) fn edited(root: Option<&Self>, start: usize, value: Option<&T>) -> Result<Option<Counted<Self>>, Error>
    where
        T: Clone,
    {
        let nodes =
            root.map_or_else(|| Self::Leaf(Leaf::of(Run::new())).edit(start, value), |root| root.edit(start, value))?;
        if let [Some(_), Some(_)] = nodes {
            let [root, _] = Run::of(nodes.iter().flatten().map(|(start, node)| (*start, node)));
            return Ok(Some(Counted::new(Self::Inner(root))?));
        }
        let mut root = nodes.into_iter().flatten().next().map(|(_, node)| node);
        while let Some(Self::Inner(nodes)) = root.as_deref()
            && nodes.length == 1
        {
            root = nodes.value(0).cloned();
        }
        Ok(root)
    }

    /// Returns the nodes that take the place of this one, with their starts.
    fn edit(&self, start: usize, value: Option<&T>) -> Result<Nodes<T>, Error>
    where
        T: Clone,
    {
        match self {
            Self::Leaf(leaf) => {
                let before = leaf.rows().filter(|(other, _)| *other < start);
                let behind = leaf.rows().filter(|(other, _)| *other > start);
                let runs = Run::of(before.chain(value.map(|value| (start, value))).chain(behind));
                nodes(runs, |rows| Self::Leaf(Leaf::of(rows)))
            }
            Self::Inner(children) => {
                let at = children.last_from(start).unwrap_or(0);
                let edited = children.value(at).map_or(Ok([None, None]), |child| child.edit(start, value))?;
                let edited = edited.iter().flatten().map(|(start, node)| (*start, node));
                let behind = children.rows().skip(at.saturating_add(1));
                nodes(Run::of(children.rows().take(at).chain(edited).chain(behind)), Self::Inner)
            }
        }
    }
}

/// What takes the place of a node: none if it would be empty, or two if it would be too long; each with its start.
type Nodes<T> = [Option<(usize, Counted<Node<T>>)>; 2];

fn nodes<T, V>([low, high]: [Run<V>; 2], node: impl Fn(Run<V>) -> Node<T>) -> Result<Nodes<T>, Error> {
    let node = |rows: Run<V>| {
        let start = rows.starts.first().copied().filter(|_| rows.length > 0);
        start.map(|start| Ok((start, Counted::new(node(rows))?))).transpose()
    };
    Ok([node(low)?, node(high)?])
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;

    type Tree = Option<Counted<Node<usize>>>;

    fn with(tree: &Tree, start: usize) -> Tree {
        Node::edited(tree.as_deref(), start, Some(&start)).unwrap()
    }

    fn without(tree: &Tree, start: usize) -> Tree {
        Node::edited(tree.as_deref(), start, None).unwrap()
    }

    fn find(tree: &Tree, address: usize) -> Option<usize> {
        tree.as_ref()?.last_from(address).copied()
    }

    /// Returns the length of the longest path, and checks that no node is empty or under the wrong start.
    fn depth(node: &Node<usize>) -> usize {
        match node {
            Node::Leaf(leaf) => {
                assert!(leaf.rows.length > 0);
                assert!(leaf.rows.rows().all(|(start, value)| start == *value));
                1
            }
            Node::Inner(nodes) => {
                assert!(nodes.length > 0);
                let first = |node: &Node<usize>| node.leaf(usize::MAX).unwrap().0.rows.starts[0];
                assert!(nodes.rows().all(|(start, node)| matches!(&**node, Node::Inner(_)) || first(node) == start));
                nodes.rows().map(|(_, node)| depth(node)).max().unwrap().saturating_add(1)
            }
        }
    }

    #[derive(Clone, Debug)]
    enum Edit {
        With(usize),
        Without(usize),
        Bury(usize),
    }

    fn edits() -> impl Strategy<Value = Vec<Edit>> {
        // Few addresses, so that most edits meet a row, and the ends of them all.
        let start = || prop_oneof![20 => (0..400_usize).prop_map(|n| n << 12), 1 => Just(0), 1 => Just(usize::MAX)];
        let edit = prop_oneof![
            6 => start().prop_map(Edit::With),
            3 => start().prop_map(Edit::Without),
            1 => start().prop_map(Edit::Bury),
        ];
        prop::collection::vec(edit, 0..600)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn rows_are_found_as_a_map_finds_them_whatever_was_edited(edits in edits()) {
            // Of what was buried the row stays, and hides those in front of it, until it is inserted again or its leaf
            // is copied.
            let (mut tree, mut model) = (None::<Counted<Node<usize>>>, BTreeMap::new());
            for edit in edits {
                match edit {
                    Edit::With(start) => {
                        tree = with(&tree, start);
                        model.insert(start, true);
                    }
                    Edit::Without(start) => {
                        tree = without(&tree, start);
                        model.remove(&start);
                    }
                    Edit::Bury(start) => {
                        if find(&tree, start) == Some(start) {
                            tree.as_ref().unwrap().bury(start);
                            model.insert(start, false);
                        }
                    }
                }
                tree.iter().for_each(|tree| assert!(depth(tree) <= 4));
            }
            for (&start, &is_live) in &model {
                prop_assert_eq!(find(&tree, start) == Some(start), is_live, "{:#x}", start);
            }
            // Once what was buried is swept, it is the map.
            while let Some(start) = tree.as_ref().and_then(|tree| tree.buried()) {
                tree = without(&tree, start);
            }
            model.retain(|_, is_live| *is_live);
            for address in model.keys().flat_map(|start| [start.saturating_sub(1), *start, start.saturating_add(4095)]).chain([0, usize::MAX]) {
                let expected = model.range(..=address).next_back().map(|(start, _)| *start);
                prop_assert_eq!(find(&tree, address), expected, "{:#x}", address);
            }
            prop_assert_eq!(tree.is_none(), model.is_empty());
        }
    }

    #[test]
    fn what_starts_last_is_found_however_rows_come_and_go() {
        const COUNT: usize = 20_000;
        let mixed = |at: usize| at * 7919 % COUNT;
        for order in [|at| at, |at| COUNT - 1 - at, mixed] {
            let mut tree = (0..COUNT).fold(None, |tree, at| with(&tree, order(at) * 4096));
            assert!((0..COUNT).all(|at| find(&tree, at * 4096 + 4095) == Some(at * 4096)));
            assert!(depth(tree.as_ref().unwrap()) <= 4, "{}", depth(tree.as_ref().unwrap()));
            let old = tree.clone();
            for at in 0..COUNT - 1 {
                tree = without(&tree, order(at) * 4096);
                assert_eq!(find(&tree, order(at) * 4096), find(&tree, (order(at) * 4096).saturating_sub(1)));
            }
            assert!(matches!(tree.as_deref(), Some(Node::Leaf(_))), "a path of single nodes is left out");
            assert!(without(&tree, order(COUNT - 1) * 4096).is_none());
            // Who reads the old one finds all.
            assert!((0..COUNT).all(|at| find(&old, at * 4096) == Some(at * 4096)));
        }
    }

    #[test]
    fn a_value_is_given_up_with_the_last_tree_that_has_it() {
        let values: Vec<_> = (0..1000).map(Arc::new).collect();
        let mut trees = vec![None];
        for (start, value) in values.iter().enumerate() {
            trees.push(Node::edited(trees[start].as_deref(), start, Some(value)).unwrap());
        }
        let mut last = trees.pop().unwrap();
        assert!(trees.len() == 1000 && values.iter().all(|value| Arc::strong_count(value) > 1));
        drop(trees);
        assert!(values.iter().all(|value| Arc::strong_count(value) == 2));
        last.as_ref().unwrap().bury(500);
        last = Node::edited(last.as_deref(), 501, None).unwrap();
        assert_eq!([500, 501, 502].map(|at| Arc::strong_count(&values[at])), [1, 1, 2]);
        drop(last);
        assert!(values.iter().all(|value| Arc::strong_count(value) == 1));
    }
}
