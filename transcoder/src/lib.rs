//! segue-transcoder
