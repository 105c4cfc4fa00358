//! [`NonEmpty`]: a list that cannot be empty.

use std::slice;

/// A list with at least one element.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NonEmpty<T> {
    head: T,
    tail: Vec<T>,
}

impl<T> NonEmpty<T> {
    /// A list of one.
    pub fn one(head: T) -> Self {
        Self { head, tail: Vec::new() }
    }

    /// The list, or nothing if `items` is empty.
    pub fn from_vec(items: Vec<T>) -> Option<Self> {
        let mut items = items.into_iter();
        let head = items.next()?;
        Some(Self { head, tail: items.collect() })
    }

    /// The list with one more element at its end.
    pub fn followed_by(mut self, last: T) -> Self {
        self.tail.push(last);
        self
    }

    /// The first element.
    pub fn first(&self) -> &T {
        &self.head
    }

    /// All elements in order.
    pub fn iter(&self) -> std::iter::Chain<std::iter::Once<&T>, slice::Iter<'_, T>> {
        std::iter::once(&self.head).chain(self.tail.iter())
    }

    /// The number of elements, at least 1.
    pub fn count(&self) -> usize {
        self.tail.len().saturating_add(1)
    }
}

impl<'a, T> IntoIterator for &'a NonEmpty<T> {
    type Item = &'a T;
    type IntoIter = std::iter::Chain<std::iter::Once<&'a T>, slice::Iter<'a, T>>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_is_refused_and_order_is_kept() {
        assert_eq!(NonEmpty::<u8>::from_vec(vec![]), None);
        let list = NonEmpty::from_vec(vec![1, 2, 3]).unwrap();
        assert_eq!(list.iter().copied().collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!((list.count(), *list.first()), (3, 1));
        assert_eq!(list.followed_by(4).iter().copied().collect::<Vec<_>>(), [1, 2, 3, 4]);
    }
}
